package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/export/file"
)

// sink is where a pipeline's profiles go: into files, and to servers by way of their spool.
type sink struct {
	store   *file.Store // nil: no files
	servers *servers
	log     *slog.Logger
	syncs   chan struct{} // asks for what was written to be synced
	ending  chan struct{}
	synced  chan struct{} // closed when the last was
}

// syncPause is how long a file waits to be synced at most, besides the time that a sync takes: who asks the disk more often
// costs others more than the data of these seconds is worth.
const syncPause = 5 * time.Second

func newSink(store *file.Store, s *servers, log *slog.Logger) *sink {
	k := &sink{store: store, servers: s, log: log, syncs: make(chan struct{}, 1), ending: make(chan struct{}), synced: make(chan struct{})}
	go k.syncing()
	return k
}

// Export writes p, and puts it into the batch for the servers. The error is of the files, where there are any: what the
// spool could not take is counted and logged there.
func (k *sink) Export(ctx context.Context, p *export.Profile) error {
	err := k.servers.take(p)
	if k.store == nil {
		return err
	}
	return k.store.Export(ctx, p)
}

// Flush offers what was exported to the servers, once it is on the disk, and has the files synced soon.
func (k *sink) Flush() error {
	select {
	case k.syncs <- struct{}{}:
	default:
	}
	err := k.servers.commit()
	if k.store == nil {
		return err
	}
	return nil
}

// syncing syncs files. A sync may take long where others write much, and nothing else waits for it.
func (k *sink) syncing() {
	defer close(k.synced)
	t := newTroubles(k.log, "dir")
	t.bad, t.good = "files may not survive a power failure", "files are on the disk again"
	for {
		select {
		case <-k.syncs:
			k.sync(t)
		case <-k.ending:
			k.sync(t)
			return
		}
		select {
		case <-k.ending:
		case <-time.After(syncPause):
		}
	}
}

func (k *sink) sync(t *troubles) {
	if k.store == nil {
		return
	}
	if err := k.store.Sync(); err != nil {
		t.failed(err, 0)
	} else {
		t.succeeded()
	}
}

// Close puts everything on the disk.
func (k *sink) Close() error {
	close(k.ending)
	err := k.Flush()
	<-k.synced
	if k.store == nil {
		return err
	}
	return errors.Join(err, k.store.Close())
}
