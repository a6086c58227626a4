package top

import (
	"testing"
	"time"
)

func TestShortName(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"main.work", 9, "main.work"},
		{"main.work", 8, "…in.work"},
		{"github.com/a/b/c.(*T).Method", 28, "github.com/a/b/c.(*T).Method"},
		{"github.com/a/b/c.(*T).Method", 27, "…/a/b/c.(*T).Method"},
		{"github.com/a/b/c.(*T).Method", 18, "…/b/c.(*T).Method"},
		{"github.com/a/b/c.(*T).Method", 12, "…(*T).Method"},
		{"main.sum[go.shape.struct { a/b int }]", 15, "main.sum[...]"},
		{"x/y/main.sum[go.shape.struct { a/b int }].func1", 24, "x/y/main.sum[...].func1"},
		{"x/y/main.sum[go.shape.struct { a/b int }].func1", 22, "…/main.sum[...].func1"},
		{"main.工作者", 11, "main.工作者"},
		{"main.工作者", 10, "…in.工作者"},
		{"main.工作者", 6, "…作者"},
		{"main.工作者", 5, "…作者"},
		{"main.工作者", 4, "…者"},
		{"main.work", 1, "m"},
		{"main.work", 0, ""},
		{"main.work", -3, ""},
	} {
		got := shortName(c.name, c.width)
		if got != c.want || columns(got) > max(c.width, 0) {
			t.Errorf("%q in %d columns: %q, want %q", c.name, c.width, got, c.want)
		}
	}
}

func TestFit(t *testing.T) {
	line := Line{{"one ", Plain}, {"二つ", Hot}, {" three", Dim}}
	for width, want := range map[int]string{0: "", 1: "…", 3: "on…", 4: "one", 6: "one …", 7: "one 二…", 8: "one 二つ", 10: "one 二つ …", 14: "one 二つ three", 99: "one 二つ three"} {
		got := fit(line, width)
		if got.String() != want || columns(got.String()) > width {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
	if line.String() != "one 二つ three" {
		t.Errorf("the line itself is cut: %q", line)
	}
}

func TestPad(t *testing.T) {
	for want, got := range map[string]string{
		"ab  ": pad("ab", 4, false), "  ab": pad("ab", 4, true), "abc…": pad("abcde", 4, false), "二… ": pad("二つ三", 4, false),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestUnits(t *testing.T) {
	for want, got := range map[string]string{
		"0 B": bytes(0), "999 B": bytes(999), "1.0 kB": bytes(1000), "123 MB": bytes(123456789), "1.2 TB": bytes(1.2e12), "4321 TB": bytes(4.321e15),
		"0s": duration(-time.Second), "59s": duration(time.Minute - 1), "2m03s": duration(123 * time.Second), "3h05m": duration(3*time.Hour + 5*time.Minute),
		"4d3h": duration(99 * time.Hour), "12.34s": seconds(12340 * time.Millisecond), "20m00s": seconds(20 * time.Minute),
		"7µs": short(7 * time.Microsecond), "1.2ms": short(1234 * time.Microsecond), "123ms": short(123456 * time.Microsecond),
		"1.2s": short(1234 * time.Millisecond), "12s": short(12345 * time.Millisecond), "12.3%": percent(0.123), "0.05%": percent2(0.0005),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
