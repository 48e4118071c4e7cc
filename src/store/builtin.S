/* The built-in model's file, as read-only data. Names begin with an underscore on Apple. */
#if defined(__APPLE__)
    .section __DATA,__const
#define SYMBOL(name) _##name
#else
    .section .rodata
#define SYMBOL(name) name
#endif
    .balign 64
    .globl SYMBOL(store_builtin_begin)
SYMBOL(store_builtin_begin):
    .incbin SHOAL_BUILTIN_MODEL
    .globl SYMBOL(store_builtin_end)
SYMBOL(store_builtin_end):
    .byte 0
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
