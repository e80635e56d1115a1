// A backend in Go. It keeps the orders that it has read from Waterclock. So each copy of the backend
// has all orders, and has them again after a restart.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

func main() {
	var lock sync.Mutex
	orders := []Event{}
	go func() {
		err := read("orders.*", func(event Event) {
			lock.Lock()
			defer lock.Unlock()
			orders = append(orders, event)
		})
		if err != nil {
			log.Fatal(err)
		}
	}()

	address := "localhost:" + variable("PORT", "8080")

	http.HandleFunc("GET /orders", func(response http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		response.Header().Set("Content-Type", "application/json")
		json.NewEncoder(response).Encode(orders)
	})

	http.HandleFunc("POST /orders/{region}", func(response http.ResponseWriter, request *http.Request) {
		// A page of another site must not publish through its visitor's browser. Programs send no Origin.
		if origin := request.Header.Get("Origin"); origin != "" && origin != "http://"+address {
			http.Error(response, "Only pages of http://"+address+" may publish", http.StatusForbidden)
			return
		}
		answer, err := publish("orders."+request.PathValue("region"), request.Body)
		if err != nil {
			response.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(response, "Waterclock does not answer: %v\n", err)
			return
		}
		defer answer.Body.Close()
		response.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		response.WriteHeader(answer.StatusCode)
		io.Copy(response, answer.Body)
	})

	log.Printf("Listening on http://%s", address)
	log.Fatal(http.ListenAndServe(address, nil))
}

// variable returns a variable of the environment, or else a default.
func variable(name, preset string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return preset
}
