// SPDX-License-Identifier: GPL-2.0-or-later
// A function with a large frame, as people write them by hand: with a table of the kind that TABLE names, or with none.
#ifdef TABLE
	.cfi_sections TABLE
#define CFI(...) __VA_ARGS__
#else
#define CFI(...)
#endif
	.text
	.globl	sleep_in_assembly
	.type	sleep_in_assembly, @function
sleep_in_assembly:
	CFI(.cfi_startproc)
	sub	$4104, %rsp
	CFI(.cfi_adjust_cfa_offset 4104)
	call	sleep_for_ever
	add	$4104, %rsp
	CFI(.cfi_adjust_cfa_offset -4104)
	ret
	CFI(.cfi_endproc)
	.size	sleep_in_assembly, . - sleep_in_assembly
	.section .note.GNU-stack, "", @progbits
