package main

import (
	"context"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

func readR3labs(given task) error {
	handle := func(event *sse.Event) {
		show(seen{Name: string(event.Event), ID: string(event.ID), Data: string(event.Data)})
	}
	if !given.Tuned {
		return sse.NewClient(given.URL).SubscribeRaw(handle)
	}
	url, token, wait := given.URL, given.Token, 200*time.Millisecond

	// The default of 64 KiB is for a whole event, as it is on the wire.
	client := sse.NewClient(url, sse.ClientMaxBufferSize(1<<20))
	client.Headers["Authorization"] = "Bearer " + token
	strategy := backoff.NewExponentialBackOff()
	strategy.MaxElapsedTime = 0 // by default it gives up 15 minutes after it began
	client.ReconnectStrategy = strategy
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for ctx.Err() == nil {
		// It returns nil when the server closes the stream, and keeps the last id.
		err := client.SubscribeRawWithContext(ctx, func(event *sse.Event) {
			if string(event.Event) == "end" {
				stop() // only with a limit
			}
			handle(event)
		})
		if err != nil {
			return err
		}
		time.Sleep(wait)
	}
	return nil
}
