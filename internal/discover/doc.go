// Package discover finds the Go processes of a machine, says which of them are wanted, and what is known of them: the
// executable's build information, control group, systemd unit, container, pod.
//
// [Inspector] looks at one process, or at all of them, once. [Discovery] keeps what it has found: it is asked about a
// process whenever one executes a program ([Discovery.Look]), lists all that run now ([Discovery.Scan]), and labels their
// profiles ([Discovery.Labels]).
//
// What is read of a process is chosen by whoever runs it: all reads are bounded, no length is trusted, and nobody
// waits for a file whose server does not answer.
package discover
