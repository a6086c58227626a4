package pyroscope

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Real starts a real server, version 2, from PYROSCOPE_BIN or the PATH, and gives its URL. Where there is none, the test is skipped.
func Real(tb testing.TB) string {
	tb.Helper()
	bin := os.Getenv("PYROSCOPE_BIN")
	if bin == "" {
		var err error
		if bin, err = exec.LookPath("pyroscope"); err != nil {
			tb.Skip("no Pyroscope server: PYROSCOPE_BIN is not set, and there is no pyroscope on the PATH")
		}
	}
	url, args := realArguments(tb)
	log := &bytes.Buffer{}
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = tb.TempDir(), log, log
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- cmd.Wait(); close(ended) }()
	stop := sync.OnceValue(func() error {
		_ = cmd.Process.Kill() // it may have ended by itself
		return <-ended
	})
	tb.Cleanup(func() { _ = stop() })
	for end := time.Now().Add(90 * time.Second); !ready(url); time.Sleep(time.Second) {
		if time.Now().After(end) {
			tb.Fatalf("%s did not become ready (%v): %s", bin, stop(), log.Bytes()[max(0, log.Len()-2000):])
		}
	}
	return url
}

// realArguments are for a server that is alone, talks to itself, and has ports of its own.
func realArguments(tb testing.TB) (url string, args []string) {
	const ip = "127.0.0.1"
	webPort, rpcPort := freePort(tb), freePort(tb)
	web, rpc, raft := ip+":"+webPort, ip+":"+rpcPort, ip+":"+freePort(tb)
	args = []string{
		"-server.http-listen-address=" + ip, "-server.http-listen-port=" + webPort, "-server.grpc-listen-address=" + ip, "-server.grpc-listen-port=" + rpcPort,
		"-metastore.address=" + rpc, "-query-backend.address=" + rpc, "-metastore.raft.server-id=" + ip, "-metastore.raft.bind-address=" + raft,
		"-metastore.raft.advertise-address=" + raft, "-metastore.raft.bootstrap-peers=" + raft,
		"-memberlist.bind-addr=" + ip, "-memberlist.advertise-addr=" + ip, "-memberlist.bind-port=" + freePort(tb),
		"-metastore.min-ready-duration=0s", "-ingester.min-ready-duration=0s", "-segment-writer.min-ready-duration=0s",
		"-architecture.storage=v2", // beside version 1, nothing is shown for a minute
		"-self-profiling.disable-push=true", "-usage-stats.enabled=false",
	}
	for _, ring := range []string{
		"segment-writer.lifecycler.addr", "ingester.lifecycler.addr", "distributor.ring.instance-addr", "query-frontend.instance-addr",
		"query-scheduler.ring.instance-addr", "compactor.ring.instance-addr", "overrides-exporter.ring.instance-addr", "store-gateway.sharding-ring.instance-addr",
	} {
		args = append(args, "-"+ring+"="+ip)
	}
	return "http://" + web, args
}

func ready(url string) bool {
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get(url + "/ready")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func freePort(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
