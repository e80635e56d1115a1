package example;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.core.ParameterizedTypeReference;
import org.springframework.http.ResponseEntity;
import org.springframework.http.codec.ServerSentEvent;
import org.springframework.stereotype.Component;
import org.springframework.web.reactive.function.client.WebClient;
import org.springframework.web.reactive.function.client.WebClientResponseException;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.retry.Retry;

/** Publishes to Waterclock, and reads from it. */
@Component
class Waterclock {
    private static final Logger log = LoggerFactory.getLogger(Waterclock.class);
    private static final Duration WAIT = Duration.ofSeconds(2);
    private static final ParameterizedTypeReference<ServerSentEvent<JsonNode>> MESSAGE =
            new ParameterizedTypeReference<>() {};

    final String url;
    private final WebClient client;

    Waterclock(WebClient.Builder builder, @Value("${waterclock.url}") String url) {
        this.url = url;
        // The default is 256 KiB. As JSON, an event may have 384 KiB.
        client = builder.baseUrl(url).codecs(codecs -> codecs.defaultCodecs().maxInMemorySize(1 << 20)).build();
    }

    /** Publishes an event. Waterclock responds with the event and its id, or with a problem. */
    Mono<ResponseEntity<String>> publish(String topic, String data) {
        return client.post().uri("/events/{topic}", topic).bodyValue(data)
                .exchangeToMono(response -> response.toEntity(String.class));
    }

    /**
     * The events of some topics: first those that are kept, then each new one. It reconnects with the
     * last id, so no event is lost or repeated. It fails if Waterclock refuses the request, since it
     * would do so again.
     */
    Flux<JsonNode> read(String topics) {
        var cursor = new AtomicReference<>("earliest");
        return Flux.defer(() -> stream(topics, cursor.get()))
                // Heartbeats come every 15 s. A connection that is silent for longer has died.
                .timeout(Duration.ofMinutes(1))
                .doOnNext(message -> {
                    if (message.id() != null) cursor.set(message.id());
                    if ("gap".equals(message.event())) log.warn("Events are missing: {}", message.data());
                })
                .repeatWhen(ends -> ends.delayElements(WAIT))
                .retryWhen(Retry.fixedDelay(Long.MAX_VALUE, WAIT)
                        .filter(error -> !isRefusal(error))
                        .doBeforeRetry(retry -> log.warn("Waterclock does not answer at {} ({}). Trying again …",
                                url, retry.failure().getMessage())))
                // The last message of a stream that does not continue.
                .takeUntil(message -> "end".equals(message.event()) && message.data().path("last").asBoolean())
                // With `format=json`, no event has a name. Notices do: hello, heartbeat, gap, end, goodbye.
                .filter(message -> message.event() == null)
                .map(ServerSentEvent::data);
    }

    private Flux<ServerSentEvent<JsonNode>> stream(String topics, String cursor) {
        return client.get().uri("/events?topic={topics}&format=json", topics)
                .header("Last-Event-ID", cursor).retrieve().bodyToFlux(MESSAGE);
    }

    private static boolean isRefusal(Throwable error) {
        return error instanceof WebClientResponseException response
                && response.getStatusCode().is4xxClientError() && response.getStatusCode().value() != 429;
    }
}
