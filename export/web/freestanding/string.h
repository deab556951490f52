/* What a generated C file uses of string.h; memory.c has the functions themselves. */
#ifndef FROSTBIT_STRING_H
#define FROSTBIT_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

/* As built-ins, so that a copy of a few bytes is a load and not a call. */
#define memcpy __builtin_memcpy
#define memset __builtin_memset

#endif
