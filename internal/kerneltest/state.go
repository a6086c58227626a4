package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// load reads what earlier runs found, if there are any.
func (c *config) load() error {
	data, err := os.ReadFile(c.state)
	if c.state == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c.results)
	}
	if err != nil {
		return fmt.Errorf("earlier results in %s: %w", c.state, err)
	}
	return nil
}

// add keeps a result, in place of an earlier one of the same kernel.
func (c *config) add(r *result) {
	c.results = slices.DeleteFunc(c.results, func(o *result) bool { return o.Arch == r.Arch && o.Kernel.Name == r.Kernel.Name })
	c.results = append(c.results, r)
	slices.SortFunc(c.results, byKernel)
}

func byKernel(a, b *result) int {
	x, _ := parseNumber(a.Kernel.Name)
	y, _ := parseNumber(b.Kernel.Name)
	return cmp.Or(cmp.Compare(a.Arch, b.Arch), x.compare(y), cmp.Compare(a.Kernel.Name, b.Kernel.Name))
}

// save writes the results as of now: a run may be cut short.
func (c *config) save(ctx context.Context) error {
	var failed error
	if c.state != "" {
		data, err := json.MarshalIndent(c.results, "", "\t")
		failed = errors.Join(err, os.WriteFile(c.state, data, 0o644))
	}
	if c.table != "" {
		failed = errors.Join(failed, os.WriteFile(c.table, []byte(table(ctx, c.results, c.offered)), 0o644))
	}
	return failed
}
