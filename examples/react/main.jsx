import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Orders } from './orders.jsx';
import './style.css';

createRoot(document.getElementById('root')).render(
  <StrictMode>
    <Orders />
  </StrictMode>,
);
