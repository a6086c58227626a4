#include "textflag.h"

// func trap()
TEXT ·trap(SB), NOSPLIT|NOFRAME, $0-0
	PUSHQ BP
	POPQ BP
	RET

// func trapAddr() uint64
TEXT ·trapAddr(SB), NOSPLIT, $0-8
	LEAQ ·trap(SB), AX
	MOVQ AX, ret+0(FP)
	RET
