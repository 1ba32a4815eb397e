package kafka

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// maxInstances bounds the processes of one service on one host.
const maxInstances = 256

// Instance is a name for this process that its next life on this host gets again, and that no other live process has: the host's
// name and the lowest free number. A transactional id must be such a name: a restarted router then ends the transaction that it left
// open at once, where otherwise all readers would wait for it to time out.
//
// The number is held by a lock on a file, which the kernel releases however the process ends. Call release at the end. The file is in
// spate-UID in the folder for temporary files, or, if another user took that name, in spate in this user's folder for caches, or in that
// of the session: the first that is safe, so that all processes of a user agree.
func Instance(service string) (name string, release func(), err error) {
	host, err := os.Hostname()
	if err != nil {
		return "", nil, fmt.Errorf("instance name: %w", err)
	}
	dir, err := lockDir()
	if err != nil {
		return "", nil, fmt.Errorf("instance name: %w", err)
	}
	defer dir.Close()
	for i := range maxInstances {
		f, err := dir.OpenFile(fmt.Sprintf("%s-%d.lock", service, i), os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return "", nil, fmt.Errorf("instance name: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return fmt.Sprintf("%s-%s-%d", service, host, i), func() {
				_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // a process that is being started has the file too, until its exec
				f.Close()
			}, nil
		}
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("instance name: lock %s: %w", f.Name(), err)
		}
	}
	return "", nil, fmt.Errorf("instance name: all %d names of %s on this host are in use", maxInstances, service)
}

// lockDir opens the first directory for locks that is safe, and makes it if need be.
func lockDir() (*os.Root, error) {
	dirs := []string{filepath.Join(os.TempDir(), fmt.Sprintf("spate-%d", os.Getuid()))}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "spate"))
	}
	if session := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(session) {
		dirs = append(dirs, filepath.Join(session, "spate"))
	}
	var errs []error
	for _, dir := range dirs {
		root, err := ownDir(dir)
		if err == nil {
			return root, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// ownDir opens a directory, or makes it, if it is this user's and nobody else can write to it. What is opened is what was looked at,
// whatever others do in the meantime in the folder that it is in; a symbolic link is not followed.
func ownDir(path string) (*os.Root, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", path)
	case !ok || int(stat.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another user", path)
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("%s is writable by other users (mode %04o); run chmod 700 on it", path, info.Mode().Perm())
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := root.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s was replaced while it was being opened", path)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}
