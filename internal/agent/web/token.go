package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	tokenBytes    = 32 // random
	minToken      = 16 // characters of one that somebody else chose
	maxToken      = 4 << 10
	tokenTempName = ".token-"
)

// Reload reads the token again, as after SIGHUP, and makes it where there is none; where it is wrong the old one stays. TLS files
// are read with each connection.
func (s *Server) Reload() error {
	if s.unix() || s.config.InsecureLoopback || s.config.TLS.ClientCA != "" {
		return nil
	}
	text, err := s.config.readOrMakeToken()
	if err != nil {
		return err
	}
	s.token.Store(&token{sha256.Sum256([]byte(text))})
	return nil
}

// Token reads the token that clients of a server with this configuration send. "": they need none.
func (c *Config) Token() (string, error) {
	if strings.HasPrefix(c.Listen, unixPrefix) || c.InsecureLoopback || c.TLS.ClientCA != "" {
		return "", nil
	}
	if c.TokenFile != "" {
		return readToken(c.TokenFile, 0o007)
	}
	return readToken(filepath.Join(c.DataDir, tokenName), 0o077)
}

func (c *Config) readOrMakeToken() (string, error) {
	text, err := c.Token()
	if c.TokenFile != "" || !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if err := makeToken(c.DataDir); err != nil {
		return "", fmt.Errorf("make a token in %s: %w", c.DataDir, err)
	}
	return c.Token()
}

// readToken refuses a file that others could have read: forbidden are the permissions that it must not have. Secrets that
// Kubernetes mounts are symbolic links, and may be readable for a group.
func readToken(path string, forbidden fs.FileMode) (string, error) {
	flags := os.O_RDONLY | syscall.O_NONBLOCK // not to wait for the writer of a pipe
	if forbidden&0o070 != 0 {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	defer f.Close()
	if err := checkSecret(f, forbidden); err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("token file %s: %w", path, err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case len(text) < minToken:
		return "", fmt.Errorf("token file %s: the token is shorter than %d characters: remove the file to have one made, or write a longer one", path, minToken)
	case len(b) > maxToken || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("token file %s: a token is one word of ASCII of at most %d characters", path, maxToken)
	}
	return text, nil
}

func checkSecret(f *os.File, forbidden fs.FileMode) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return errors.New("is no regular file")
	case !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return errors.New("belongs to another user, who knows the token: remove it, or chown it")
	case st.Mode().Perm()&forbidden != 0:
		return fmt.Errorf("others may read or change it (mode %04o): chmod 600 it, and change the token", st.Mode().Perm())
	}
	return nil
}

// makeToken writes the file token completely before it has its name: an agent that is killed leaves no half token.
func makeToken(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := checkDir(root); err != nil {
		return err
	}
	temp := tokenTempName + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = root.Remove(temp) }()
	random := make([]byte, tokenBytes)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	_, err = f.WriteString(base64.RawURLEncoding.EncodeToString(random) + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := root.Link(temp, tokenName); err != nil && !errors.Is(err, fs.ErrExist) { // it exists: another agent was faster
		return err
	}
	return nil
}

// checkDir: whoever may write to the directory could put a token of their own there.
func checkDir(root *os.Root) error {
	st, err := root.Stat(".")
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the directory belongs to another user (uid %d is wanted), or others may write to it (mode %04o): chown it, and chmod go-w it",
			os.Geteuid(), st.Mode().Perm())
	}
	return nil
}
