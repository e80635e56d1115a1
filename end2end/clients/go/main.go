// Readers of event streams in Go, one for each library. The library is the first argument, the task
// the second, as JSON. What a reader sees goes to the standard output, one JSON object a line.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type task struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	Tuned bool   `json:"tuned"`
}

type seen struct {
	Name   string `json:"name,omitempty"`
	ID     string `json:"id"`
	Data   string `json:"data"`
	Closed string `json:"closed,omitempty"`
}

func show(what seen) {
	if what.Name == "" && what.Closed == "" {
		what.Name = "message"
	}
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func main() {
	var given task
	if err := json.Unmarshal([]byte(os.Args[2]), &given); err != nil {
		panic(err)
	}
	read := map[string]func(task) error{"r3labs": readR3labs, "go-sse": readGoSSE}[os.Args[1]]
	show(seen{Closed: fmt.Sprintf("returned: %v", read(given))})
}
