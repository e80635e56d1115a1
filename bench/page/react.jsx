// The page from tutorials on Server-Sent Events with React, unchanged: the state is an array, each
// message creates a longer one, and React renders all of it. Only the URL is not a constant here.
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
