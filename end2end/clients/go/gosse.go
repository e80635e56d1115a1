package main

import (
	"net/http"

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
	token := given.Token

	request.Header.Set("Authorization", "Bearer "+token)
	connection := sse.NewConnection(request)
	connection.Buffer(nil, 1<<20) // the default of 64 KiB is for a whole event, as it is on the wire
	connection.SubscribeToAll(handle)
	return connection.Connect()
}
