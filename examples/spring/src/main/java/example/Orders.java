package example;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.CrossOrigin;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.reactive.function.client.WebClientRequestException;
import org.springframework.web.reactive.function.client.WebClientResponseException;
import reactor.core.publisher.Mono;

/**
 * Keeps the orders that it has read from Waterclock. So each copy of the backend has all orders, and
 * has them again after a restart.
 */
@RestController
class Orders {
    private static final Logger log = LoggerFactory.getLogger(Orders.class);

    private final List<JsonNode> orders = new CopyOnWriteArrayList<>();
    private final Waterclock waterclock;

    Orders(Waterclock waterclock) {
        this.waterclock = waterclock;
        waterclock.read("orders.*").subscribe(orders::add, Orders::fail);
    }

    @GetMapping("/orders")
    List<JsonNode> all() {
        return orders;
    }

    // Spring refuses other origins: their pages must not publish through a visitor's browser.
    @CrossOrigin("http://localhost:${server.port}")
    @PostMapping("/orders/{region}")
    Mono<ResponseEntity<String>> publish(@PathVariable String region, @RequestBody String order) {
        return waterclock.publish("orders." + region, order)
                .onErrorResume(WebClientRequestException.class, error -> Mono.just(ResponseEntity.status(503)
                        .body("Waterclock does not answer: " + error.getMessage() + "\n")));
    }

    private static void fail(Throwable error) {
        var reason = error instanceof WebClientResponseException response ? response.getResponseBodyAsString() : "";
        log.error("Waterclock refuses this: {} {}", error.getMessage(), reason);
        // A thread of its own, since the end of the program waits for this one.
        new Thread(() -> System.exit(1)).start();
    }
}
