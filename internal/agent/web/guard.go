package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// User is the name that goes with the token in Basic authentication.
const User = "pprofd"

// refusal says why a request is not answered.
type refusal struct {
	code         int
	reason, text string
}

// refuse returns nil for what may be answered.
func (s *Server) refuse(r *http.Request, access Access) *refusal {
	switch {
	case !s.hostOK(r):
		return &refusal{http.StatusForbidden, "host",
			"pprofd is not known by this name, to keep other sites from being taken for it: call it by its IP address, or add the name to auth.hosts"}
	case !originOK(r, access):
		return &refusal{http.StatusForbidden, "origin", "requests that other sites make a browser send are not answered"}
	case access == Protected && !s.trusts(r):
		return &refusal{http.StatusUnauthorized, "authentication", s.howTo()}
	}
	return nil
}

// hostOK defends against DNS rebinding: a site whose name is made to resolve to this server's address sends its own name.
func (s *Server) hostOK(r *http.Request) bool {
	if s.unix() {
		return true // no browser gets here
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return s.config.knows(strings.Trim(host, "[]"))
}

// originOK: what a browser sends for another site says so in Origin, or, for GET, in Sec-Fetch-Site. A link that somebody
// clicks on may lead to what is open.
func originOK(r *http.Request, access Access) bool {
	if origins := r.Header.Values("Origin"); len(origins) > 0 {
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		return len(origins) == 1 && strings.EqualFold(origins[0], scheme+r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return access == Open && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// trusts says whether the request comes from somebody who may see profiles.
func (s *Server) trusts(r *http.Request) bool {
	switch {
	case s.unix() || s.config.InsecureLoopback:
		return true
	case s.config.TLS.ClientCA != "":
		return r.TLS != nil && len(r.TLS.VerifiedChains) > 0
	}
	t := s.token.Load()
	if user, password, ok := r.BasicAuth(); ok {
		return t.is(password) && user == User
	}
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && t.is(strings.TrimSpace(bearer))
}

func (s *Server) howTo() string {
	if s.config.TLS.ClientCA != "" {
		return "this needs a client certificate that an authority of auth.tls.client_ca signed"
	}
	return "this needs the token of the agent: `pprofd url` prints URLs that have it"
}

func (s *Server) unix() bool { return strings.HasPrefix(s.config.Listen, unixPrefix) }

// token is kept as its hash: hashes are of one length, so that comparing takes the same time whatever is sent.
type token struct{ sum [sha256.Size]byte }

func (t *token) is(text string) bool {
	if t == nil {
		return false
	}
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}
