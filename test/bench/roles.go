package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/skeinlb/skein/test/bench/load"
)

// roles are what this program does in processes of its own.
var roles = map[string]func(args []string) error{
	"origin": func(args []string) error {
		port, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return load.Serve(port, func() { fmt.Println("ready") })
	},
	"load": func([]string) error {
		var j load.Job
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			return err
		}
		r, err := load.Run(j)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	},
	"hold": func([]string) error { // the job, and the end of input to ask once more and say how many are gone
		var j load.Job
		in := json.NewDecoder(os.Stdin)
		if err := in.Decode(&j); err != nil {
			return err
		}
		return load.Hold(j, func(ask func(int) error) error {
			fmt.Println("ready")
			_, err := io.Copy(io.Discard, os.Stdin)
			if err != nil {
				return err
			}
			gone := 0
			for i := range j.Conns {
				if ask(i) != nil {
					gone++
				}
			}
			fmt.Println(gone)
			return nil
		})
	},
}
