// Command kfs-launch runs the command of a step inside its pod and tells how it
// went; see package launch. It is put there by kfs:
//
//	kfs-launch run --spec=SPEC -- COMMAND ARGUMENTS...
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/kfs-project/kfs/internal/launch"
)

func main() {
	args := os.Args[1:]
	if len(args) < 3 || args[0] != "run" || !strings.HasPrefix(args[1], "--spec=") || args[2] != "--" {
		fmt.Fprintln(os.Stderr, "usage: kfs-launch run --spec=SPEC -- COMMAND ARGUMENTS...")
		os.Exit(2)
	}
	os.Exit(launch.Run(launch.Config{}, strings.TrimPrefix(args[1], "--spec="), args[3:]))
}
