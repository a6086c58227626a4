// Command delivery measures what it costs to deliver profiles: bytes on the wire and on disk, and CPU time. Root.
//
//   - `pprofd agent` samples services (internal/testprog/targets/service) at 19 and at 99 Hz and delivers to files and to a server of
//     each protocol at once: one service that keeps a core busy, and 200 services of 20 programs that use half a percent of a
//     core each. A second process takes what is sent, counts its bytes at the sockets, and says yes to everything. Bytes are
//     divided by the samples in the files; a core-hour is that of a core that is busy all the time: 3600 s of samples.
//   - A window of 200 processes, which the agent has written there, is exported once more by this process, to each destination on its own.
//     Counted is the CPU time of this process (getrusage) from the finished profile to the server's answer: encoding, the
//     spool with its fsync, reading that again, and the exporter.
//
// go run ./benchmarks/delivery writes to standard output; it takes three minutes.
package main
