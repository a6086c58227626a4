package ui

import (
	"slices"
	"strings"
	"time"

	"github.com/pprofd/pprofd/export/pprofhttp"
)

// selection is what a path says that is to be shown.
type selection struct {
	of, base part // base.kind "": nothing to compare with
}

// part is one profile: KIND@STAMP, or KIND for one that has to be taken.
type part struct{ kind, stamp string }

func (p part) String() string {
	if p.stamp == "" {
		return p.kind
	}
	return p.kind + "@" + p.stamp
}

func (s selection) String() string {
	if s.base.kind == "" {
		return s.of.String()
	}
	return s.of.String() + "~" + s.base.String()
}

func parseSelection(text string) (s selection, err error) {
	of, base, compared := strings.Cut(text, "~")
	if s.of, err = parsePart(of); err == nil && compared {
		s.base, err = parsePart(base)
	}
	return s, err
}

func parsePart(text string) (part, error) {
	kind, stamp, pinned := strings.Cut(text, "@")
	if !slices.Contains(kinds, kind) {
		return part{}, pprofhttp.NotFound("there is no kind of profile %q: there are %s", kind, strings.Join(kinds, ", "))
	}
	if _, err := time.Parse(stampFormat, stamp); pinned && err != nil {
		return part{}, pprofhttp.NotFound("there is no profile %q", text)
	}
	return part{kind, stamp}, nil
}
