package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// This file is the registry of the services: the servers that outlive the
// program.

// lockLimit is how long to wait for another mnist to let go of the registry.
const lockLimit = time.Minute

// service is one entry in the registry: a server in the background.
type service struct {
	URL     string    `json:"url"`
	PID     int       `json:"pid"`
	Log     string    `json:"log"`
	Started time.Time `json:"started"`
	ID      string    `json:"id"`             // random, and in the command line of the process
	Note    string    `json:"note,omitempty"` // for people: what it serves
}

// registry is the file services.json under home: the services by name. Who
// changes it holds its lock.
type registry struct {
	home string
	lock *os.File
	list map[string]service
}

func registryFile(home string) string { return filepath.Join(home, "services.json") }

// readServices returns the services by name. None is an empty map.
func readServices(home string) (map[string]service, error) {
	list := map[string]service{}
	data, err := os.ReadFile(registryFile(home))
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	} else if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s is damaged: remove it, and end what it listed by hand: %w", registryFile(home), err)
	}
	return list, nil
}

// openRegistry locks the registry and reads it.
func openRegistry(ctx context.Context, home string) (*registry, error) {
	lock, err := os.OpenFile(filepath.Join(home, "services.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	limit := time.Now().Add(lockLimit)
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		busy := errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR)
		if busy && time.Now().Before(limit) && sleep(ctx, pollEvery) == nil {
			continue
		}
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w: does another mnist hang?", lock.Name(), err)
	}
	list, err := readServices(home)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &registry{home, lock, list}, nil
}

// close lets go of the lock.
func (r *registry) close() { r.lock.Close() }

func (r *registry) set(name string, s service) error {
	r.list[name] = s
	if err := writeFile(r.pidFile(name), []byte(strconv.Itoa(s.PID)+"\n")); err != nil {
		return err
	}
	return r.save()
}

func (r *registry) remove(name string) error {
	delete(r.list, name)
	if err := os.Remove(r.pidFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.save()
}

func (r *registry) save() error {
	data, err := json.MarshalIndent(r.list, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(registryFile(r.home), append(data, '\n'))
}

func (r *registry) pidFile(name string) string { return filepath.Join(r.home, "run", name+".pid") }
func (r *registry) logFile(name string) string { return filepath.Join(r.home, "log", name+".log") }

// A service's name becomes the name of files, and in a cluster that of a Service.
var serviceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

func checkName(flag, name string) error {
	if !serviceName.MatchString(name) {
		return usagef("%s is %q: wanted up to 63 small letters, digits and hyphens, with a letter first", flag, name)
	}
	return nil
}

func checkServiceType(kind string) error {
	if kind != "ClusterIP" && kind != "NodePort" && kind != "LoadBalancer" {
		return usagef("--service-type is %q: wanted ClusterIP, NodePort or LoadBalancer", kind)
	}
	return nil
}

// checkPort reads a port number from an environment variable; unset is 0,
// which lets the system choose.
func checkPort(env string) (int, error) {
	v := os.Getenv(env)
	if v == "" {
		return 0, nil
	}
	port, err := strconv.Atoi(v)
	if err != nil || port < 0 || port > 65535 {
		return 0, fmt.Errorf("%s is %q: wanted a port from 0 to 65535", env, v)
	}
	return port, nil
}
