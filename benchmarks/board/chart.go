package board

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Series is one line of a chart, points by x.
type Series struct {
	Name string
	X, Y []float64
}

// Chart is a picture of lines over one x axis. Y begins at 0.
type Chart struct {
	Title, X, Y string
	LogX        bool
	Lines       []Series
	Steps       bool     // a value holds up to the next x
	Dashed      []string // names of lines: limits, above which there is room for the legend
	Bands       []Band
}

// Band is a part of the x axis that is shaded.
type Band struct {
	Name     string // in the legend; "": not there
	From, To float64
}

// Room above the highest line; where that is a limit, the legend has to be above it.
const headroom, legendRoom = 1.1, 1.4

const (
	chartWidth, chartHeight = 18 * vg.Centimeter, 8 * vg.Centimeter
	edge                    = 4 * vg.Millimeter // on the right, for half of the last number of the axis
)

// WriteSVG writes charts of one file, one below the other.
func WriteSVG(path string, charts ...Chart) error {
	canvas := vgsvg.New(chartWidth, chartHeight*vg.Length(len(charts)))
	rows := make([][]*plot.Plot, len(charts))
	for i := range charts {
		p, err := charts[i].plot()
		if err != nil {
			return fmt.Errorf("chart %q: %w", charts[i].Title, err)
		}
		rows[i] = []*plot.Plot{p}
	}
	// Axes that mean the same lie one below the other.
	all := vgdraw.Crop(vgdraw.New(canvas), 0, -edge, 0, 0)
	for i, area := range plot.Align(rows, vgdraw.Tiles{Rows: len(rows), Cols: 1}, all) {
		rows[i][0].Draw(area[0])
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func (c *Chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	p.BackgroundColor = nil
	p.Add(plotter.NewGrid())
	if err := c.shade(p); err != nil {
		return nil, err
	}
	if c.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	for i, s := range c.Lines {
		if len(s.X) != len(s.Y) {
			return nil, fmt.Errorf("%s: %d x, %d y", s.Name, len(s.X), len(s.Y))
		}
		xy := make(plotter.XYs, len(s.X))
		for j := range xy {
			xy[j].X, xy[j].Y = s.X[j], s.Y[j]
		}
		line, err := plotter.NewLine(xy)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		if c.Steps {
			line.StepStyle = plotter.PostStep
		}
		if slices.Contains(c.Dashed, s.Name) {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		p.Add(line)
		if len(c.Lines) > 1 {
			p.Legend.Add(s.Name, line)
		}
	}
	p.Y.Min = 0
	if len(c.Bands) == 0 { // else they are as high as that
		p.Y.Max *= c.headroom()
	}
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(2)
	return p, nil
}

func (c *Chart) headroom() float64 {
	if len(c.Dashed) > 0 {
		return legendRoom
	}
	return headroom
}

// shade draws the bands, as high as the highest line.
func (c *Chart) shade(p *plot.Plot) error {
	high := 0.0
	for _, s := range c.Lines {
		for _, y := range s.Y {
			high = max(high, y)
		}
	}
	high *= c.headroom()
	for _, b := range c.Bands {
		area, err := plotter.NewPolygon(plotter.XYs{{X: b.From}, {X: b.From, Y: high}, {X: b.To, Y: high}, {X: b.To}})
		if err != nil {
			return fmt.Errorf("band %q: %w", b.Name, err)
		}
		area.Color, area.LineStyle.Width = color.Gray{0xe4}, 0
		p.Add(area)
		if b.Name != "" {
			p.Legend.Add(b.Name, area)
		}
	}
	return nil
}
