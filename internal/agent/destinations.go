package agent

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/pprofd/pprofd/export"
	"github.com/pprofd/pprofd/internal/agent/config"
)

// Destination sends profiles to one server.
type Destination struct {
	Name string // as in the agent's log and metrics
	export.Exporter
}

// Destinations are the servers of c that take profiles. Nothing is connected to. Version is pprofd's.
func Destinations(c *config.Config, version string) ([]Destination, error) {
	s := &servers{log: slog.New(slog.DiscardHandler), version: version}
	var list []Destination
	for _, w := range s.wanted(c) {
		if !w.takesProfiles() {
			continue
		}
		x, err := w.profiles()
		if err != nil {
			err = fmt.Errorf("%s: %w", w.name, err)
			for _, d := range list {
				err = errors.Join(err, d.Close())
			}
			return nil, err
		}
		list = append(list, Destination{w.name, x})
	}
	return list, nil
}
