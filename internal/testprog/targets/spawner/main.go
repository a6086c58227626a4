// Command spawner executes a program over and over, as os/exec does: fork, then exec. It says as which processes ("spawned PID ...") and
// what CPU time it used itself ("used NS"); then it executes what -last names, once, and waits for it ("last PID").
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"targets/internal/cpuclock"
)

func main() {
	n := flag.Int("n", 1000, "how often")
	last := flag.String("last", "", "a command to execute at the end")
	flag.Parse()
	fmt.Println("ready", os.Getpid())
	var pids []string
	for i := 0; i < *n; i++ {
		c := exec.Command(flag.Arg(0), flag.Args()[1:]...)
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		pids = append(pids, strconv.Itoa(c.Process.Pid))
	}
	fmt.Println("spawned", strings.Join(pids, " "))
	if words := strings.Fields(*last); len(words) > 0 {
		c := exec.Command(words[0], words[1:]...)
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("last", c.Process.Pid, int64(c.ProcessState.UserTime()+c.ProcessState.SystemTime()))
	}
	fmt.Println("used", int64(cpuclock.Process()))
}
