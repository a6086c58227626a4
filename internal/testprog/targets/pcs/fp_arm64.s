// func framePointer() uintptr
TEXT ·framePointer(SB),4,$0-8
	MOVD R29, ret+0(FP)
	RET
