// A function written in assembly that does not say where it ends (D62).
	.text
	.globl	fast
	.type	fast, @function
fast:
	.cfi_startproc
	leal	3(%rdi,%rdi), %eax
	addl	$100, %eax
	ret
	.cfi_endproc
	.globl	slow
	.type	slow, @function
slow:
	.cfi_startproc
	leal	(%rdi,%rdi,4), %eax
	ret
	.cfi_endproc
	.size	slow, .-slow
	.section	.note.GNU-stack,"",@progbits
