package pyroscope

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/pprofd/pprofd/export"
)

// Limits of one profile. The server takes 2 MiB at once and 4 MiB/s of a tenant (distributor.ingestion-burst-size-mb and
// ingestion-rate-limit-mb), counting what is not compressed; what is nearly as large as the burst finds the bucket full enough only
// if nobody else sends. It refuses more than 16,000 samples (validation.max-profile-stacktrace-samples).
const (
	maxRaw     = 1 << 20
	maxSamples = 15_000
)

// maxRefused is how often what is within those limits is divided, since it was refused as too large nevertheless.
const maxRefused = 6

// A server whose burst is smaller than the usual, or that others keep busy, never takes what is large, and does not say so: what has been
// refused patience times, as what comes too fast, is halved at the next call, down to minRaw.
const (
	patience = 4
	minRaw   = 128 << 10
)

// maxText bounds the names in a stack that is too large alone.
const maxText = 200

// maxProgress bounds for how many profiles it is remembered which of their parts were sent.
const maxProgress = 256

// identity of a profile that is sent again: the hash of what it is and holds.
type identity [sha256.Size]byte

// progress says what became of the parts of a profile, by number. Part 0 is all of it, and n has the halves 2n+1 and 2n+2. The
// number is also what its time is later, in nanoseconds, since the server keeps one of two profiles of equal labels and time; so a
// part that is sent twice has the same time, and no two parts have.
type progress struct {
	sent, halved map[int]bool
	limited      map[int]int // how often it came too fast
}

func (r *request) identity(enc *export.Encoded) identity {
	h := sha256.New()
	p := r.profile
	fmt.Fprintf(h, "%q %d %d %d %q", p.Kind, p.PID, p.StartTicks, p.Start.UnixNano(), r.series)
	h.Write(enc.Gzip)
	return identity(h.Sum(nil))
}

// begun is how far a profile is; forget ends that.
func (e *Exporter) begun(id identity) *progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.progress[id]; s != nil {
		return s
	}
	if len(e.oldest) >= maxProgress {
		delete(e.progress, e.oldest[0])
		e.oldest = e.oldest[1:]
	}
	s := &progress{sent: map[int]bool{}, halved: map[int]bool{}, limited: map[int]int{}}
	e.progress[id] = s
	e.oldest = append(e.oldest, id)
	return s
}

// known is how far a profile is that was sent in part before.
func (e *Exporter) known(r *request, enc *export.Encoded) *progress {
	e.mu.Lock()
	some := len(e.progress) > 0
	e.mu.Unlock()
	if !some {
		return nil
	}
	id := r.identity(enc)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress[id]
}

func (e *Exporter) forget(id identity) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.progress, id)
	if i := slices.Index(e.oldest, id); i >= 0 {
		e.oldest = slices.Delete(e.oldest, i, i+1)
	}
}

// deliver sends a profile as it is where it can be, and in parts where it must be.
func (e *Exporter) deliver(ctx context.Context, r *request, enc *export.Encoded) error {
	s := &splitter{e: e, r: r, done: e.known(r, enc)}
	if s.done == nil && r.kind.types == nil && !enc.Labels && enc.Depth <= maxFrames && r.fits(enc) {
		if err := e.whole(ctx, r, enc); !s.divisible(err, enc.Samples) {
			s.impatient(err, enc, enc)
			return err
		}
		s.refused++
	}
	d, err := profile.ParseData(enc.Gzip)
	if err != nil {
		return invalid(r.profile, fmt.Errorf("decode: %w", err))
	}
	s.d, s.time = d, d.TimeNanos
	changed, err := e.mend(d, r)
	if err != nil {
		return invalid(r.profile, err)
	}
	mended := enc
	if changed {
		if mended, err = s.encode(0, d.Sample); err != nil {
			return err
		}
	}
	if mended.Samples == 0 { // nothing is in use
		return nil
	}
	if s.done == nil && s.refused == 0 && r.fits(mended) {
		if err := e.whole(ctx, r, mended); !s.divisible(err, mended.Samples) {
			s.impatient(err, enc, mended)
			return err
		}
		s.refused++
	}
	return s.parts(ctx, r.identity(enc), s.refused > 0 || !r.fits(mended))
}

func (e *Exporter) whole(ctx context.Context, r *request, enc *export.Encoded) error {
	r.gzip = enc.Gzip
	return e.send(ctx, r)
}

// fits says whether the server takes enc at once, by its usual limits.
func (r *request) fits(enc *export.Encoded) bool {
	labels := 0
	for _, l := range r.series {
		labels += len(l.Name) + len(l.Value)
	}
	return enc.Raw+labels <= maxRaw && enc.Samples <= maxSamples
}

// splitter sends a profile in parts.
type splitter struct {
	e       *Exporter
	r       *request
	d       *profile.Profile // nobody else's
	time    int64            // of d
	done    *progress        // nil: none of it was sent before
	refused int              // how often what is being sent was refused as too large, and divided
}

// divisible says whether err is that of a profile that is too large for this server, and may not be in parts.
func (s *splitter) divisible(err error, samples int) bool {
	d := export.RetryOf(err)
	return d != nil && d.Reason == reasonTooLarge && samples > 1 && s.refused < maxRefused
}

// impatient counts how often a profile, enc, that was to be sent at once as mended, came too fast.
func (s *splitter) impatient(err error, enc, mended *export.Encoded) {
	if d := export.RetryOf(err); d != nil && d.Reason == reasonLimited && mended.Raw > minRaw {
		s.e.begun(s.r.identity(enc)).limited[0]++
	}
}

func (s *splitter) parts(ctx context.Context, id identity, halved bool) error {
	s.done = s.e.begun(id)
	if halved {
		s.halve(0)
	}
	err := s.send(ctx, 0, s.d.Sample)
	if d := export.RetryOf(err); err == nil || d != nil && d.Retry == export.Never {
		s.e.forget(id)
	}
	return err
}

// halve has part n be sent in halves from now on.
func (s *splitter) halve(n int) {
	if len(s.done.halved) == 0 {
		s.e.stats.split.Add(1)
	}
	s.done.halved[n] = true
}

// send sends part n, or its halves. After a failure that may pass, the rest is left for the next call; what the server does not want,
// it is not asked again.
func (s *splitter) send(ctx context.Context, n int, samples []*profile.Sample) error {
	if s.done.sent[n] {
		return nil
	}
	before := s.refused
	defer func() { s.refused = before }()
	if !s.done.halved[n] {
		done, err := s.one(ctx, n, samples)
		if done || err != nil {
			return err
		}
		s.halve(n)
	}
	middle := len(samples) / 2
	left := s.send(ctx, 2*n+1, samples[:middle])
	if d := export.RetryOf(left); left != nil && (d == nil || d.Retry != export.Never) {
		return left
	}
	if right := s.send(ctx, 2*n+2, samples[middle:]); right != nil {
		return right
	}
	return left
}

// one sends part n as it is, if it fits.
func (s *splitter) one(ctx context.Context, n int, samples []*profile.Sample) (done bool, err error) {
	if len(samples) > maxSamples {
		return false, nil
	}
	enc, err := s.encode(n, samples)
	if err != nil {
		return false, err
	}
	if !s.r.fits(enc) {
		if len(samples) > 1 {
			return false, nil
		}
		shorten(samples[0])
		if enc, err = s.encode(n, samples); err != nil {
			return false, err
		}
	}
	if err := s.e.whole(ctx, s.r, enc); err != nil {
		if s.divisible(err, len(samples)) {
			s.refused++
			return false, nil
		}
		if d := export.RetryOf(err); d != nil && d.Reason == reasonLimited && enc.Raw > minRaw && len(samples) > 1 {
			if s.done.limited[n]++; s.done.limited[n] >= patience {
				s.halve(n)
			}
		}
		return false, fmt.Errorf("part %d: %w", n, err)
	}
	s.done.sent[n] = true
	return true, nil
}

func (s *splitter) encode(n int, samples []*profile.Sample) (*export.Encoded, error) {
	p := subset(s.d, samples)
	p.TimeNanos = s.time + int64(n)
	enc, err := export.Encode(p)
	if err != nil {
		return nil, invalid(s.r.profile, fmt.Errorf("encode: %w", err))
	}
	return enc, nil
}

// subset is a profile of some of d's samples, with what they need of d's tables and the program, which is the first mapping. It
// numbers d's entries anew, so that it has to be encoded before the next is made.
func subset(d *profile.Profile, samples []*profile.Sample) *profile.Profile {
	p := &profile.Profile{
		SampleType: d.SampleType, DefaultSampleType: d.DefaultSampleType, PeriodType: d.PeriodType, Period: d.Period,
		DurationNanos: d.DurationNanos, Sample: samples, Comments: d.Comments,
	}
	for _, m := range d.Mapping {
		m.ID = 0
	}
	for _, f := range d.Function {
		f.ID = 0
	}
	for _, l := range d.Location {
		l.ID = 0
	}
	if len(d.Mapping) > 0 {
		addMapping(p, d.Mapping[0])
	}
	for _, s := range samples {
		for _, l := range s.Location {
			addLocation(p, l)
		}
	}
	return p
}

func addLocation(p *profile.Profile, l *profile.Location) {
	if l.ID != 0 {
		return
	}
	p.Location = append(p.Location, l)
	l.ID = uint64(len(p.Location))
	addMapping(p, l.Mapping)
	for _, line := range l.Line {
		if f := line.Function; f != nil && f.ID == 0 {
			p.Function = append(p.Function, f)
			f.ID = uint64(len(p.Function))
		}
	}
}

func addMapping(p *profile.Profile, m *profile.Mapping) {
	if m != nil && m.ID == 0 {
		p.Mapping = append(p.Mapping, m)
		m.ID = uint64(len(p.Mapping))
	}
}

// shorten leaves the ends of the texts of a stack, which tell more than their beginnings. It has a thousand frames at most.
func shorten(s *profile.Sample) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if f := line.Function; f != nil {
				end(&f.Name, &f.SystemName, &f.Filename)
			}
		}
		if m := l.Mapping; m != nil {
			end(&m.File, &m.BuildID)
		}
	}
}

func end(texts ...*string) {
	for _, t := range texts {
		if n := len(*t); n > maxText {
			*t = strings.ToValidUTF8((*t)[n-maxText:], "")
		}
	}
}
