#include "textflag.h"

// func trap()
TEXT ·trap(SB), NOSPLIT|NOFRAME, $0-0
	BLS done
done:
	RET

// func trapAddr() uint64
TEXT ·trapAddr(SB), NOSPLIT, $0-8
	MOVD $·trap(SB), R0
	MOVD R0, ret+0(FP)
	RET
