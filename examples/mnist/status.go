package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// This file is the subcommands status and stop.

// runStatus lists the services that run.
func runStatus(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if err := parse(newFlags("status"), args, stdout); err != nil {
		return err
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	list, err := readServices(home)
	if err != nil {
		return err
	}
	none := true
	for _, name := range slices.Sorted(maps.Keys(list)) {
		s := list[name]
		if !s.runs() {
			continue
		}
		none = false
		state := "answers"
		if !s.answers(ctx) {
			state = "does not answer: see " + s.Log
		}
		if s.Note != "" {
			state += "; " + s.Note
		}
		fmt.Fprintf(stdout, "%s: %s (pid %d) %s\n", name, s.URL, s.PID, state)
	}
	if none {
		fmt.Fprintln(stdout, "nothing runs")
	}
	return nil
}

// runStop ends all services.
func runStop(ctx context.Context, args []string, stdout, _ io.Writer) error {
	if err := parse(newFlags("stop"), args, stdout); err != nil {
		return err
	}
	home, err := homeDir()
	if err != nil {
		return err
	}
	r, err := openRegistry(ctx, home)
	if err != nil {
		return err
	}
	defer r.close()
	none := true
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(r.list)) {
		s := r.list[name]
		ended, err := s.stop()
		if err != nil {
			faults = append(faults, fmt.Errorf("stop %s: %w", name, err))
			continue
		}
		if ended {
			none = false
			fmt.Fprintf(stdout, "stopped %s (pid %d)\n", name, s.PID)
		}
		if err := r.remove(name); err != nil {
			faults = append(faults, err)
		}
	}
	if none && len(faults) == 0 {
		fmt.Fprintln(stdout, "nothing runs")
	}
	return errors.Join(faults...)
}
