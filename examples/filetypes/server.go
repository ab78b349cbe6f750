package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"sync"
)

type counter struct {
	mu     sync.Mutex
	visits map[string]int
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.visits[r.URL.Path]++
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(c.visits); err != nil {
		log.Printf("encode: %v", err)
	}
}

func main() {
	c := &counter{visits: make(map[string]int)}
	fmt.Println("listening on 127.0.0.1:8080")
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", c))
}
