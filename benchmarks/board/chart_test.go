package board

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteSVG: all charts of a file are in it, with their lines' names, and it is well-formed.
func TestWriteSVG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.svg")
	lines := []Series{{"one", []float64{1, 2}, []float64{3, 4}}, {"two", []float64{1, 2}, []float64{5, 4}}}
	if err := WriteSVG(path, Chart{Title: "upper", X: "s", Y: "MB", Lines: lines}, Chart{Title: "lower", LogX: true, Lines: lines[:1]}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var svg struct{ XMLName xml.Name }
	if err := xml.Unmarshal(b, &svg); err != nil || svg.XMLName.Local != "svg" {
		t.Errorf("%v %v", svg, err)
	}
	upper, lower := strings.Index(string(b), "upper"), strings.Index(string(b), "lower")
	if upper < 0 || lower < 0 || !strings.Contains(string(b), "two") {
		t.Errorf("upper at %d, lower at %d of %d", upper, lower, len(b))
	}
	banded := Chart{Steps: true, Lines: lines, Dashed: []string{"two"}, Bands: []Band{{"shaded", 1, 2}, {"", 2, 3}}}
	if err := WriteSVG(path, banded); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(path); err != nil || !strings.Contains(string(b), "shaded") || strings.Count(string(b), "#E4E4E4") < 2 || !strings.Contains(string(b), "stroke-dasharray") {
		t.Errorf("no band or dashes: %v\n%s", err, b)
	}
	if err := WriteSVG(path, Chart{Lines: []Series{{"odd", []float64{1}, nil}}}); err == nil {
		t.Error("no error for a line without y")
	}
}
