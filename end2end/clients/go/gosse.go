package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

func readGoSSE(given task) error {
	handle := func(event sse.Event) {
		show(seen{Name: event.Type, ID: event.LastEventID, Data: event.Data})
	}
	request, err := http.NewRequest(http.MethodGet, given.URL, http.NoBody)
	if err != nil {
		return err
	}
	if !given.Tuned {
		connection := sse.NewConnection(request)
		connection.SubscribeToAll(handle)
		return connection.Connect()
	}
	token, wait := given.Token, 200*time.Millisecond

	request.Header.Set("Authorization", "Bearer "+token)
	away := errors.New("the server is away")
	client := sse.Client{ResponseValidator: func(response *http.Response) error {
		if response.StatusCode >= 500 {
			return away // a proxy sends 502 while the server restarts
		}
		return sse.DefaultValidator(response)
	}}
	connection := client.NewConnection(request)
	connection.Buffer(nil, 1<<20) // the default of 64 KiB is for a whole event, as it is on the wire
	connection.SubscribeToAll(handle)
	for {
		// It gives up at an invalid response, and keeps the last id.
		if err := connection.Connect(); !errors.Is(err, away) {
			return err
		}
		time.Sleep(wait)
	}
}
