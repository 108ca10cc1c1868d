// Entry of a guest kernel: the arm64 Image header, relocation, zeroed data, stack, and the exception vectors.
//
// Entered at _start as the arm64 Linux boot protocol says: EL1, MMU and data cache off, interrupts masked, x0 = device
// tree, loaded at a multiple of 2 MiB. Nothing is called before memory is as the compiled code expects it.

    .section .head, "ax"
    .global _start
_start:
header:
    b       begin
    .long   0
    .quad   0                           // text_offset
    .quad   _image_end - header         // image_size: zeroed data and stack included
    .quad   {HEADER_FLAGS}
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

begin:
    mrs     x20, cntvct_el0             // the first instruction but one
    mov     x19, x0

    // Every relocation adds the load address to an addend (the image is linked at 0).
    adr     x1, header
    adrp    x2, _rela_start
    add     x2, x2, :lo12:_rela_start
    adrp    x3, _rela_end
    add     x3, x3, :lo12:_rela_end
1:  cmp     x2, x3
    b.hs    2f
    ldp     x4, x5, [x2], #16           // r_offset, r_info
    ldr     x6, [x2], #8                // r_addend
    cmp     x5, #{RELATIVE}
    b.ne    give_up
    add     x6, x6, x1
    str     x6, [x1, x4]
    b       1b

2:  adrp    x2, _bss_start
    add     x2, x2, :lo12:_bss_start
    adrp    x3, _bss_end
    add     x3, x3, :lo12:_bss_end
3:  cmp     x2, x3
    b.hs    4f
    stp     xzr, xzr, [x2], #16
    b       3b

4:  adrp    x2, _stack_top
    add     x2, x2, :lo12:_stack_top
    mov     sp, x2
    adr     x2, vectors
    msr     vbar_el1, x2
    isb

    mov     x0, x19
    adr     x1, header
    adrp    x2, _image_end
    add     x2, x2, :lo12:_image_end
    mov     x3, x20
    bl      {start}

give_up:
    ldr     w0, ={SYSTEM_RESET}
    hvc     #0
5:  wfi
    b       5b

    .ltorg

// Nothing here is expected: each entry tells its number and ends the VM.
    .macro  vector number
    .balign 0x80
    mov     x0, #\number
    bl      {exception}
    .endm

    .balign 0x800
vectors:
    .irp    number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector  \number
    .endr
