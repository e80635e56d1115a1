// The page that tutorials on SSE with React end up with, unchanged: state is an array, each message makes
// a longer one, and all of it is rendered. Only the URL is not a constant here.
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

const url = new URLSearchParams(location.search).get('url');

function App() {
  const [messages, setMessages] = useState([]);

  useEffect(() => {
    const es = new EventSource(url);
    es.onmessage = (e) => setMessages((prev) => [...prev, e.data]);
    return () => es.close();
  }, []);

  return (
    <ul>
      {messages.map((m, i) => (
        <li key={i}>{m}</li>
      ))}
    </ul>
  );
}

createRoot(document.getElementById('root')).render(<App />);
