package main

import (
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// identity is the user who called sudo, as whom a program behind -- runs.
type identity struct {
	UID, GID int
	Groups   []int
	name     string // "" where the user has no entry
	home     string
}

// sudoUser is who called sudo: nil where nobody did, or root.
func sudoUser(euid int, getenv func(string) string) (*identity, error) {
	if euid != 0 || getenv("SUDO_UID") == "" {
		return nil, nil
	}
	uid, uidErr := strconv.ParseUint(getenv("SUDO_UID"), 10, 31)
	gid, gidErr := strconv.ParseUint(getenv("SUDO_GID"), 10, 31)
	if uidErr != nil || gidErr != nil {
		return nil, usagef("SUDO_UID=%q SUDO_GID=%q are no numbers; unset them, or use --as-root", getenv("SUDO_UID"), getenv("SUDO_GID"))
	}
	if uid == 0 {
		return nil, nil
	}
	id := &identity{UID: int(uid), GID: int(gid), Groups: []int{int(gid)}}
	if u, err := user.LookupId(strconv.Itoa(id.UID)); err == nil {
		id.name, id.home = u.Username, u.HomeDir
		id.Groups = groupsOf(u, id.GID)
	}
	return id, nil
}

// groupsOf are the user's groups, gid among them. Where they cannot be found gid alone is the safe answer.
func groupsOf(u *user.User, gid int) []int {
	groups := []int{gid}
	names, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, name := range names {
		if g, err := strconv.Atoi(name); err == nil && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return groups
}

// assume makes this process id, for good. The kernel drops all capabilities with the change of the user (capabilities(7)).
func (id *identity) assume() error {
	if err := syscall.Setgroups(id.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setgid(id.GID); err != nil {
		return fmt.Errorf("set group: %w", err)
	}
	if err := syscall.Setuid(id.UID); err != nil {
		return fmt.Errorf("set user: %w", err)
	}
	return nil
}

// environ is env as the user would have it without sudo, as far as sudo has left it: PATH stays what sudo made of it.
// A nil identity changes nothing.
func (id *identity) environ(env []string) []string {
	if id == nil {
		return env
	}
	set := map[string]string{}
	if id.name != "" {
		set = map[string]string{"HOME": id.home, "USER": id.name, "LOGNAME": id.name}
	}
	var out []string
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if _, replaced := set[key]; !replaced && !strings.HasPrefix(key, "SUDO_") && key != "MAIL" {
			out = append(out, e)
		}
	}
	for _, key := range []string{"HOME", "USER", "LOGNAME"} {
		if value, ok := set[key]; ok {
			out = append(out, key+"="+value)
		}
	}
	return out
}
