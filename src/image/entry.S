// The way into Rust, from a boot loader's jump and, once it has left the firmware, from the EFI application.
//
// Entered with x0 = device tree, MMU and data caches off, at any page-aligned address, at EL2 (or EL1, which Rust then
// reports). Nothing of Rust may run before the image is relocated and .bss is zero; no atomic read-modify-write may
// run before the MMU is on.
//
// This lies in the page of the headers, which UEFI firmware may map without the right to execute it: it is run with the
// MMU off only.

.section .head.entry, "ax"
// As a boot loader enters. Clobbers everything but x0.
image_entry:
    mov     x1, xzr
// The same with x1 = what UEFI firmware said (efi/handover.rs), or 0.
// x19 = device tree, x20 = load address, x21 = CurrentEL, x22 = what firmware said.
.global image_entry_with
image_entry_with:
    msr     daifset, #{DAIF_ALL}
    msr     spsel, #1
    mov     x19, x0
    mov     x22, x1
    adrp    x20, image_start
    mrs     x21, currentel
    cmp     x21, #{CURRENT_EL2}
    b.ne    1f

    // A known state of EL2, whatever firmware left: MMU off, then no VHE, no stage 2, interrupts routed here.
    ldr     x1, ={SCTLR_MMU_OFF}
    msr     sctlr_el2, x1
    isb
    ldr     x1, ={HCR_BOOT}
    msr     hcr_el2, x1
    isb
1:
    // Lines of the image that a cache still holds from earlier times must not be written back over what is stored
    // from here on, nor be read instead of it once caches are on.
    mov     x0, x20
    adrp    x1, image_end
    bl      {clean_and_invalidate}
    bl      relocate

    // .bss, and the guard page behind it: what is not zero there before it is unmapped shows that the stack ran over.
    adrp    x1, bss_start
    add     x1, x1, :lo12:bss_start
    adrp    x2, stack_start
2:  cmp     x1, x2
    b.hs    3f
    stp     xzr, xzr, [x1], #{BSS_STEP}
    b       2b
3:
    cmp     x21, #{CURRENT_EL2}
    b.ne    4f
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el2, x1
4:
    // Instructions that were loaded are fetched anew.
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
    mov     x2, x22
    bl      {start}

.global park
park:
    wfi
    b       park

.ltorg

// Relocates: the image was linked at 0, so to each word that holds an address the load address is added; a second time
// adds nothing. The list is packed (ELF's SHT_RELR): an even entry is the offset of a word, x4 points behind it then; an
// odd one has a bit for each of the next 63 words, from bit 1 up. Needs no stack; clobbers x0–x7.
.section .text.relocate, "ax"
.global relocate
relocate:
    adrp    x0, image_start
    adrp    x1, relocated_by
    add     x1, x1, :lo12:relocated_by
    ldr     x7, [x1]
    str     x0, [x1]
    sub     x7, x0, x7
    adrp    x1, relocations_start
    add     x1, x1, :lo12:relocations_start
    adrp    x2, relocations_end
    add     x2, x2, :lo12:relocations_end
1:  cmp     x1, x2
    b.hs    6f
    ldr     x3, [x1], #8
    tbnz    x3, #0, 2f
    add     x4, x0, x3
    ldr     x5, [x4]
    add     x5, x5, x7
    str     x5, [x4], #8
    b       1b
2:  mov     x6, x4
3:  lsr     x3, x3, #1
    cbz     x3, 5f
    tbz     x3, #0, 4f
    ldr     x5, [x6]
    add     x5, x5, x7
    str     x5, [x6]
4:  add     x6, x6, #8
    b       3b
5:  add     x4, x4, #{RELR_SPAN}
    b       1b
6:  ret

// The address that the relocated words have in them.
.section .data.relocated_by, "aw"
.balign 8
relocated_by:
    .quad   0
