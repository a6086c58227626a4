package discover

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		waited := time.Duration(0)
		for range 100 {
			wait := b.take(patience)
			b.spend(wait)
			waited += wait
			time.Sleep(wait)
		}
		if waited > maxBudget+maxBudget/budgetShare+100*leastWait {
			t.Errorf("waited %v in a row", waited)
		}
		begin := time.Now()
		for waited = 0; time.Since(begin) < time.Minute; time.Sleep(10 * time.Millisecond) {
			wait := b.take(patience)
			b.spend(wait)
			waited += wait
		}
		if waited > 15*time.Second { // a millisecond of each 11, and 5 %
			t.Errorf("waited %v of a minute", waited)
		}
		time.Sleep(time.Hour)
		if got := b.take(time.Hour); got != maxBudget {
			t.Errorf("after an hour of peace: %v", got)
		}
	})
}

func TestJobsAreShared(t *testing.T) {
	var j jobs
	count := func(uid uint32) (n int) {
		for j.begin(uid) {
			n++
		}
		return n
	}
	if a, b, root := count(1), count(2), count(0); a != maxJobsOfUser || b != maxJobsOfUser || root != maxJobs-2*maxJobsOfUser {
		t.Errorf("%d, %d, %d", a, b, root)
	}
	if count(3) > 0 {
		t.Error("there are more than may be")
	}
	j.end(1)
	if n := count(1); n != 1 {
		t.Errorf("%d more", n)
	}
	for range maxJobsOfUser {
		j.end(1)
	}
	if _, ok := j.byUser[1]; ok {
		t.Error("a user is not forgotten")
	}
}

// TestOneHostileUser: processes that stall, however many, do not keep those of others from being found.
func TestOneHostileUser(t *testing.T) {
	m := newMachine(t)
	d := m.discovery(Config{})
	m.spawn(fake{pid: 9, start: 1, comm: "fine", exe: spin(t)})
	if !d.Look(9, 1) {
		t.Fatal("not found")
	}
	for pid := 100; pid < 140; pid++ {
		m.spawn(fake{pid: pid, start: 1, comm: "stalls", exe: spin(t), uid: 33})
		environ := filepath.Join(m.root, strconv.Itoa(pid), "environ")
		if err := errors.Join(os.Remove(environ), syscall.Mkfifo(environ, 0o600)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if f, err := os.OpenFile(environ, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
		}()
		d.Look(pid, 1)
	}
	m.spawn(fake{pid: 200, start: 1, comm: "fine, too", exe: spin(t), uid: 44})
	begin := time.Now()
	until(t, "the others are found", func() bool { return len(scan(t, d)) == 2 })
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}
