// The arm64 Image header, and the way from it into Rust.
//
// Entered with x0 = device tree, MMU and data caches off, at any page-aligned address, at EL2 (or EL1, which Rust then
// reports). Nothing of Rust may run before the image is relocated and .bss is zero; no atomic read-modify-write may
// run before the MMU is on.

.section .head, "ax"
.global image_header
image_header:
    b       image_entry
    .long   0
    .quad   {TEXT_OFFSET}
    .quad   image_size
    .quad   {FLAGS}
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// Clobbers everything but x0. x19 = device tree, x20 = load address, x21 = CurrentEL.
image_entry:
    msr     daifset, #{DAIF_ALL}
    msr     spsel, #1
    mov     x19, x0
    adrp    x20, image_start
    mrs     x21, currentel
    cmp     x21, #{CURRENT_EL2}
    b.ne    1f

    // A known state of EL2, whatever firmware left: no VHE, no stage 2, interrupts routed here, MMU off.
    ldr     x1, ={HCR_BOOT}
    msr     hcr_el2, x1
    ldr     x1, ={SCTLR_MMU_OFF}
    msr     sctlr_el2, x1
    isb
1:
    // Lines of the image that a cache still holds from earlier times must not be written back over what is stored
    // from here on, nor be read instead of it once caches are on.
    mov     x0, x20
    adrp    x1, image_end
    bl      {clean_and_invalidate}

    // Relocate: the image was linked at 0, so to each word that holds an address the load address is added. The list is
    // packed (ELF's SHT_RELR): an even entry is the offset of a word, x4 points behind it then; an odd one has a bit for
    // each of the next 63 words, from bit 1 up.
    adrp    x1, relocations_start
    add     x1, x1, :lo12:relocations_start
    adrp    x2, relocations_end
    add     x2, x2, :lo12:relocations_end
2:  cmp     x1, x2
    b.hs    3f
    ldr     x3, [x1], #8
    tbnz    x3, #0, 7f
    add     x4, x20, x3
    ldr     x5, [x4]
    add     x5, x5, x20
    str     x5, [x4], #8
    b       2b
7:  mov     x6, x4
8:  lsr     x3, x3, #1
    cbz     x3, 10f
    tbz     x3, #0, 9f
    ldr     x5, [x6]
    add     x5, x5, x20
    str     x5, [x6]
9:  add     x6, x6, #8
    b       8b
10: add     x4, x4, #{RELR_SPAN}
    b       2b
3:
    // .bss, and the guard page behind it: what is not zero there before it is unmapped shows that the stack ran over.
    adrp    x1, bss_start
    add     x1, x1, :lo12:bss_start
    adrp    x2, stack_start
4:  cmp     x1, x2
    b.hs    5f
    stp     xzr, xzr, [x1], #{BSS_STEP}
    b       4b
5:
    cmp     x21, #{CURRENT_EL2}
    b.ne    6f
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el2, x1
6:
    // Instructions that were relocated or loaded are fetched anew.
    dsb     sy
    ic      iallu
    dsb     sy
    isb

    adrp    x1, stack_end
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x21
    bl      {start}

.global park
park:
    wfi
    b       park

.ltorg
