//! The hub alone: publishes, subscribes, and resumes exactly after the last event seen.
//!
//! `cargo run --example hub --features hub`

use waterclock::{Cursor, Delivery, Draft, Hub, Pattern, Patterns, Topic};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hub = Hub::in_memory();
    let topic: Topic = "orders.eu".parse()?;
    let orders = Patterns::from("orders.>".parse::<Pattern>()?);

    let mut subscriber = hub.subscribe(orders.clone(), Cursor::Now);
    hub.publish(Draft::new(topic.clone(), "order 1").named("created".parse()?)).await?;
    print(subscriber.next().await?);

    // The client disconnects and misses two events.
    let cursor = subscriber.cursor();
    drop(subscriber);
    hub.publish(Draft::new(topic.clone(), "order 2")).await?;
    hub.publish(Draft::new(topic, "order 3")).await?;

    // With its cursor it continues as if it had never been away.
    let mut subscriber = hub.subscribe(orders, Cursor::After(cursor));
    print(subscriber.next().await?);
    Ok(())
}

fn print(delivery: Delivery) {
    match delivery {
        Delivery::Events(batch) => batch.iter().for_each(|e| println!("{}", e.event().to_json())),
        Delivery::End { end, .. } => println!("{} has ended: {:?}", end.topic, end.outcome),
        Delivery::Gap(gap) => println!("events are missing after {}", gap.cursor),
    }
}

#[test]
fn runs() {
    main().unwrap();
}
