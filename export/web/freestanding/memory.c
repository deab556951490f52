/* memcpy and memset, which WebAssembly without bulk memory does not have. */
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

/* no_builtin: the compiler would make of each loop a call of the function that it is in. */
__attribute__((no_builtin("memcpy"))) void *memcpy(void *to, const void *from, size_t count)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    while (count--)
        *out++ = *in++;
    return to;
}

__attribute__((no_builtin("memset"))) void *memset(void *to, int value, size_t count)
{
    unsigned char *out = to;
    while (count--)
        *out++ = (unsigned char)value;
    return to;
}
