// Package profilestorepb is Parca's profile store on the wire, as far as exporters and tests need it.
package profilestorepb

//go:generate go run -C ../../../tools ./protoc ../export/parca/profilestorepb/profilestore.proto
