// Package notify tells systemd how the agent is (sd_notify(3)). Where systemd did not start it, and does not want to know,
// nothing is done.
package notify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the agent profiles, at the start and after Reloading. status is a line for `systemctl status`.
func Ready(status string) error { return send(daemon.SdNotifyReady, statusLine(status)) }

// Reloading says that the configuration is being read again; Ready has to follow, whether it was any good or not.
func Reloading() error { return send(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec()) }

// Stopping says that the agent is about to end.
func Stopping() error { return send(daemon.SdNotifyStopping) }

// Status changes the line for `systemctl status`.
func Status(status string) error { return send(statusLine(status)) }

func statusLine(status string) string {
	return "STATUS=" + strings.ReplaceAll(strings.ToValidUTF8(status, "?"), "\n", " ")
}

func send(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notify systemd (NOTIFY_SOCKET): %w", err)
	}
	return nil
}

// Watchdog tells systemd, until ctx is done, that the agent is alive, as long as alive returns nil; when it does not, systemd
// starts the agent anew after WatchdogSec. Without a watchdog it waits for ctx. Failures to tell are given to failed.
func Watchdog(ctx context.Context, alive func() error, failed func(error)) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("watchdog of systemd (WATCHDOG_USEC, WATCHDOG_PID): %w", err)
	}
	if limit <= 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(max(limit/3, time.Millisecond))
	defer t.Stop()
	for {
		err := alive()
		if err == nil {
			err = send(daemon.SdNotifyWatchdog)
		}
		if err != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
