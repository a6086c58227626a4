package agent

import (
	"os"
	"testing"

	"github.com/pprofd/pprofd/internal/testprog/leaks"
)

func TestMain(m *testing.M) {
	if orders := os.Getenv(victimOrders); orders != "" {
		os.Exit(beVictim(orders))
	}
	os.Exit(leaks.Run(m))
}
