// For programs with the tag fgprof: go build -modfile=fgprof.mod -tags=fgprof. All others have no dependencies, and go.mod.
module targets

go 1.18

require github.com/felixge/fgprof v0.9.5

require github.com/google/pprof v0.0.0-20240227163752-401108e1b7e7 // indirect
