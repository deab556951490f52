/* What a generated C file uses of math.h: the browser's own exponential. */
#ifndef FROSTBIT_MATH_H
#define FROSTBIT_MATH_H

__attribute__((import_module("env"), import_name("expf"))) float expf(float x);

#endif
