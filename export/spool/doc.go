// Package spool keeps profiles on disk until all destinations have them.
//
// A Spool is a directory of batches, each a file of some profiles that came together. A batch is on the disk (fsync of the file,
// rename, fsync of the directory) before it is offered to any destination. Where the disk is full, the oldest batches make
// room; if that does not help, the batch lives in memory, bounded, and is offered all the same.
//
// Each destination has a Cursor, and a file of what it has got or what was dropped for it: 64 bytes, checksummed, by one plain
// write, before Done or Drop return. So a program that is killed sends again at most what it was sending, and each drop is
// counted once, whatever happens: the numbers of a cursor go on after a restart.
//
// The spool is bounded by size and age: the oldest batches go, and what they held is counted for each destination that had not
// got it. What was taken and is neither done nor dropped is kept meanwhile.
//
// Destinations are known by name. One that is new, or comes back, begins with what is still there and not older than it takes
// (Destination.MaxAge), but for what it has got. One that is no more holds nothing: a batch goes when all present
// destinations have it.
//
// Ages are taken by a clock that does not step; what the clock of the day said of a batch that is found at the start is believed, if it is
// in the past.
//
// # Files
//
//	<sequence of the first profile, 16 hex digits>-<profiles>-<sum of Encoded.Total>.spool
//	<name of the destination>.acks
//
// Everything has checksums. In a batch, a wrong byte costs the profile that it belongs to; in its header, the batch: the name says
// then how much that was. In the acks it costs one acknowledgement at most: that profile is sent twice. All of it is counted.
package spool
