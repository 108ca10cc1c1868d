/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Entry: the arm64 Image header, zeroed data, stack, exception vectors; and a call with every register known.
 *
 * Entered by the arm64 Linux boot protocol: EL1, MMU and caches off, interrupts masked, x0 = device tree.
 */
        .section .head, "ax"
        .global _start
_start: b       begin
        .long   0
        .quad   0                       /* text_offset: RAM begins at the address this is linked at */
        .quad   image_size
        .quad   0b010                   /* little endian, 4 KiB pages */
        .quad   0, 0, 0
        .ascii  "ARM\x64"
        .long   0

begin:  adr     x1, _start
        ldr     x2, =_start
        cmp     x1, x2
        b.ne    give_up                 /* not where it is linked: nothing would work */
        ldr     x1, =bss_start
        ldr     x2, =bss_end
1:      cmp     x1, x2
        b.hs    2f
        stp     xzr, xzr, [x1], #16
        b       1b
2:      ldr     x1, =stack_top
        mov     sp, x1
        ldr     x1, =vectors
        msr     vbar_el1, x1
        mov     x1, #(3 << 20)          /* CPACR_EL1.FPEN: floating point does not trap */
        msr     cpacr_el1, x1
        isb
        bl      c_probe
give_up:
        ldr     w0, =0x84000009         /* SYSTEM_RESET */
        hvc     #0
3:      wfi
        b       3b

        .ltorg

/* Nothing here is expected. */
        .macro  vector number
        .balign 0x80
        mov     x0, #\number
        mrs     x1, esr_el1
        mrs     x2, elr_el1
        mrs     x3, far_el1
        bl      unexpected_exception
        b       give_up
        .endm

        .balign 0x800
vectors:
        .irp    number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vector  \number
        .endr

        .text
/* void call_with_all(const uint64_t in[31], uint64_t out[31], uint64_t simd[64], uint64_t *flags)
 *
 * HVC #0 with x0 to x30 = in; v0 to v31 hold (i, i) each plus 0x5eed0000, NZCV is 0b1010. What they are afterwards goes to out,
 * simd and flags (PSTATE.NZCV in bits 31:28).
 */
        .global call_with_all
call_with_all:
        stp     x29, x30, [sp, #-128]!
        stp     x19, x20, [sp, #16]
        stp     x21, x22, [sp, #32]
        stp     x23, x24, [sp, #48]
        stp     x25, x26, [sp, #64]
        stp     x27, x28, [sp, #80]
        stp     x1, x2, [sp, #96]
        str     x3, [sp, #112]
        mov     x4, #0x5eed0000
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        add     x5, x4, #\n
        dup     v\n\().2d, x5
        .endr
        mov     x4, #0xa0000000
        msr     nzcv, x4
        ldp     x2, x3, [x0, #16]
        ldp     x4, x5, [x0, #32]
        ldp     x6, x7, [x0, #48]
        ldp     x8, x9, [x0, #64]
        ldp     x10, x11, [x0, #80]
        ldp     x12, x13, [x0, #96]
        ldp     x14, x15, [x0, #112]
        ldp     x16, x17, [x0, #128]
        ldp     x18, x19, [x0, #144]
        ldp     x20, x21, [x0, #160]
        ldp     x22, x23, [x0, #176]
        ldp     x24, x25, [x0, #192]
        ldp     x26, x27, [x0, #208]
        ldp     x28, x29, [x0, #224]
        ldr     x30, [x0, #240]
        ldp     x0, x1, [x0]
        hvc     #0
        stp     x0, x1, [sp, #-16]!
        ldr     x0, [sp, #112]
        stp     x2, x3, [x0, #16]
        ldp     x2, x3, [sp], #16
        stp     x2, x3, [x0]
        stp     x4, x5, [x0, #32]
        stp     x6, x7, [x0, #48]
        stp     x8, x9, [x0, #64]
        stp     x10, x11, [x0, #80]
        stp     x12, x13, [x0, #96]
        stp     x14, x15, [x0, #112]
        stp     x16, x17, [x0, #128]
        stp     x18, x19, [x0, #144]
        stp     x20, x21, [x0, #160]
        stp     x22, x23, [x0, #176]
        stp     x24, x25, [x0, #192]
        stp     x26, x27, [x0, #208]
        stp     x28, x29, [x0, #224]
        str     x30, [x0, #240]
        ldp     x1, x2, [sp, #104]
        mrs     x3, nzcv
        str     x3, [x2]
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        mov     x2, v\n\().d[0]
        mov     x3, v\n\().d[1]
        stp     x2, x3, [x1], #16
        .endr
        ldp     x27, x28, [sp, #80]
        ldp     x25, x26, [sp, #64]
        ldp     x23, x24, [sp, #48]
        ldp     x21, x22, [sp, #32]
        ldp     x19, x20, [sp, #16]
        ldp     x29, x30, [sp], #128
        ret

        .section .note.GNU-stack, "", %progbits
