package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Event is an event as JSON has it (`format=json`).
type Event struct {
	ID    string    `json:"id"`
	Topic string    `json:"topic"`
	Name  string    `json:"name"`
	Data  string    `json:"data"`
	Time  time.Time `json:"time"`
}

var waterclock = variable("WATERCLOCK_URL", "http://127.0.0.1:3000")

// publish publishes an event. Waterclock responds with the event and its id, or with a problem.
func publish(topic string, data io.Reader) (*http.Response, error) {
	return http.Post(waterclock+"/events/"+url.PathEscape(topic), "text/plain", data)
}

// read passes on the events of some topics: first those that are kept, then each new one. It
// reconnects with the last id, so no event is lost or repeated. It returns nil at the end of a
// stream, and an error if Waterclock refuses the request, since it would do so again.
func read(topics string, take func(Event)) error {
	cursor := "earliest"
	for {
		status, err := readStream(topics, &cursor, take)
		switch {
		case status == http.StatusNoContent:
			return nil
		case status >= 400 && status < 500 && status != http.StatusTooManyRequests:
			return err
		}
		log.Printf("Waterclock does not answer at %s (%v). Trying again …", waterclock, err)
		time.Sleep(2 * time.Second)
	}
}

// readStream reads one response, and moves the cursor. It returns the status, or 0.
func readStream(topics string, cursor *string, take func(Event)) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Heartbeats come every 15 s. A connection that is silent for longer has died.
	const limit = time.Minute
	silence := time.AfterFunc(limit, cancel)
	defer silence.Stop()

	query := url.Values{"topic": {topics}, "format": {"json"}}
	request, err := http.NewRequestWithContext(ctx, "GET", waterclock+"/events?"+query.Encode(), nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Last-Event-ID", *cursor)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		problem, _ := io.ReadAll(response.Body)
		return response.StatusCode, fmt.Errorf("Waterclock answers %s: %s", response.Status, problem)
	}
	log.Printf("Reading %s from %s", topics, waterclock)

	// A Scanner would refuse lines of more than 64 KiB.
	lines := bufio.NewReader(response.Body)
	var id, name, data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return response.StatusCode, err
		}
		silence.Reset(limit)
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			name = value
		case "data":
			data = value // With `format=json` it is one line.
		case "":
			// Events have no name, with `format=json`. Notices do: hello, heartbeat, gap, end, goodbye.
			if name == "gap" {
				log.Printf("Events are missing: %s", data)
			} else if name == "" && data != "" {
				var event Event
				if err := json.Unmarshal([]byte(data), &event); err != nil {
					return response.StatusCode, err
				}
				take(event)
			}
			if id != "" {
				*cursor = id
			}
			id, name, data = "", "", ""
		}
	}
}
